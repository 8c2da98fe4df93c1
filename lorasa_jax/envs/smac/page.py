"""The page of a replay; `__RECORDING__` stands for its data."""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Replay</title>
<link rel="icon" href="data:,">
<style>
:root { --ground: #eef1f4; --line: #c9ced4; --panel: #ffffff; --text: #181d24; --quiet: #5c6673; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #1c2128; --line: #444c56; --panel: #11151a; --text: #e8ecf1; --quiet: #a0a9b5; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1100px; padding: 12px; background: var(--panel);
  color: var(--text); font: 14px/1.4 system-ui, sans-serif; }
h1 { font-size: 16px; margin: 0 0 8px; overflow-wrap: anywhere; }
canvas { width: 100%; display: block; border-radius: 8px; background: var(--ground); }
#controls { display: flex; flex-wrap: wrap; gap: 6px 12px; align-items: center; margin: 8px 0; }
#slider { flex: 1 1 160px; }
#read { font-variant-numeric: tabular-nums; white-space: nowrap; }
button, select { font: inherit; padding: 4px 12px; }
ul { list-style: none; margin: 0; padding: 0; columns: 4 150px; }
li { display: flex; gap: 7px; align-items: center; break-inside: avoid; cursor: pointer; }
li i { width: 12px; height: 12px; border-radius: 50%; flex: none; }
li.dead { color: var(--quiet); text-decoration: line-through; }
li.chosen { font-weight: 700; }
</style>
</head>
<body>
<h1 id="title"></h1>
<canvas id="canvas" aria-label="The battle"></canvas>
<div id="controls">
  <button id="play" aria-label="Play or pause">Play</button>
  <input id="slider" type="range" min="0" value="0" step="1" aria-label="Step">
  <select id="speed" aria-label="Speed">
    <option value="1">game speed</option>
    <option value="3" selected>3 times</option>
    <option value="8">8 times</option>
  </select>
  <span id="read"></span>
</div>
<ul id="legend"></ul>
<script type="application/json" id="recording">__RECORDING__</script>
<script>
"use strict";
const R = JSON.parse(document.getElementById("recording").textContent);
const by = id => document.getElementById(id);
const canvas = by("canvas"), pen = canvas.getContext("2d"), last = R.x.length - 1;
const margin = 1.5, low = R.map.low.map(v => v - margin), high = R.map.high.map(v => v + margin);
let time = 0, playing = false, before = 0, chosen = -1;
by("title").textContent = document.title = R.title;
by("slider").max = last;

R.units.forEach((unit, i) => {
  const item = document.createElement("li"), dot = document.createElement("i");
  dot.style.background = unit.colour;
  item.append(dot, unit.name);
  item.onclick = () => { chosen = chosen === i ? -1 : i; draw(); };
  by("legend").append(item);
});

function mix(values, i) {
  const step = Math.min(Math.floor(time), last), next = Math.min(step + 1, last);
  return values[step][i] + (values[next][i] - values[step][i]) * (time - step);
}

function draw() {
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth * ratio;
  const scale = width / (high[0] - low[0]), height = (high[1] - low[1]) * scale;
  if (canvas.width !== Math.round(width) || canvas.height !== Math.round(height)) {
    canvas.width = Math.round(width);
    canvas.height = Math.round(height);
  }
  const px = x => (x - low[0]) * scale, py = y => (high[1] - y) * scale;
  const colours = getComputedStyle(document.documentElement);
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.strokeStyle = colours.getPropertyValue("--line");
  pen.strokeRect(px(R.map.low[0]), py(R.map.high[1]),
    (R.map.high[0] - R.map.low[0]) * scale, (R.map.high[1] - R.map.low[1]) * scale);
  const step = Math.min(Math.floor(time), last), shown = Math.min(Math.ceil(time), last);
  const places = R.units.map((_, i) => [px(mix(R.x, i)), py(mix(R.y, i))]);
  pen.lineWidth = 2 * ratio;
  R.units.forEach((unit, i) => {
    const target = R.acts[shown][i];
    if (target < 0 || !R.alive[step][i]) return;
    pen.strokeStyle = unit.healer ? "#3fb950" : i < R.allies ? "#e3a008" : "#e5534b";
    pen.beginPath();
    pen.moveTo(...places[i]);
    pen.lineTo(...places[target]);
    pen.stroke();
  });
  const order = R.units.map((_, i) => i).sort((a, b) => R.units[a].air - R.units[b].air);
  for (const i of order) {
    by("legend").children[i].className =
      (R.alive[step][i] ? "" : "dead ") + (chosen === i ? "chosen" : "");
    if (!R.alive[step][i]) continue;
    const unit = R.units[i], [x, y] = places[i], radius = unit.radius * scale;
    pen.fillStyle = unit.colour;
    pen.beginPath();
    pen.arc(x, y, radius, 0, 2 * Math.PI);
    pen.fill();
    if (chosen === i) {
      pen.strokeStyle = colours.getPropertyValue("--text");
      pen.stroke();
    }
    pen.fillStyle = "#ffffff";
    pen.font = `${Math.max(0.75 * scale, 8)}px system-ui, sans-serif`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.fillText(unit.letter, x, y);
    let above = y - radius - 0.2 * scale;
    for (const [values, colour] of
      [[R.health, "#3fb950"], [R.shields, "#6cb6ff"], [R.energy, "#c58cff"]]) {
      const share = mix(values, i);
      if (values[step][i] < 0) continue;
      pen.fillStyle = colours.getPropertyValue("--line");
      pen.fillRect(x - 0.5 * scale, above, scale, 0.13 * scale);
      pen.fillStyle = colour;
      pen.fillRect(x - 0.5 * scale, above, scale * Math.max(0, Math.min(1, share)), 0.13 * scale);
      above -= 0.2 * scale;
    }
  }
  by("slider").value = step;
  by("read").textContent = `step ${step} of ${last}, return ${R.returns[step].toFixed(2)}`;
}

function play(on) {
  playing = on;
  by("play").textContent = on ? "Pause" : "Play";
  if (on && time >= last) time = 0;
  before = performance.now();
  if (on) requestAnimationFrame(frame);
}

function frame(now) {
  if (!playing) return;
  // The first frame may have begun before the click that asked for it.
  const passed = Math.max(0, now - before) / 1000;
  time = Math.min(time + passed / R.seconds * by("speed").value, last);
  before = now;
  draw();
  if (time >= last) play(false); else requestAnimationFrame(frame);
}

by("play").onclick = () => play(!playing);
by("slider").oninput = () => { play(false); time = Number(by("slider").value); draw(); };
document.addEventListener("keydown", event => {
  if (event.target.tagName === "SELECT" || event.target.tagName === "BUTTON") return;
  const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (event.key === " ") play(!playing);
  else if (move && event.target.id !== "slider") {
    play(false);
    time = Math.max(0, Math.min(last, Math.floor(time) + move));
    draw();
  } else return;
  event.preventDefault();
});
window.addEventListener("resize", draw);
draw();
</script>
</body>
</html>
"""
