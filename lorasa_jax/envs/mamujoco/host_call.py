"""Python functions that compiled code calls on its own buffers on a CPU, known to it by a name.

`jax.experimental.buffer_callback` does the same with functions that a program holds by their place
in a list, and JAX keeps no such program on disk: every process would compile it again. Here XLA
knows a function by a name that says what it computes (`jax.ffi.register_ffi_target`), and a program
from the cache finds it there. The structures are those of XLA's C interface, xla/ffi/api/c_api.h,
whose fields keep their places.
"""

import ctypes
import math
import traceback
from collections.abc import Callable
from ctypes import POINTER, c_char, c_char_p, c_int, c_int64, c_size_t, c_void_p
from typing import Any

import jax
import numpy as np

_TYPES = {11: np.dtype(np.float32), 12: np.dtype(np.float64)}  # XLA_FFI_DataType
_METADATA = 1  # XLA_FFI_Extension_Type
_INTERNAL = 13  # XLA_FFI_Error_Code
_HEAD = [("struct_size", c_size_t), ("extension", c_void_p)]


class _Buffer(ctypes.Structure):
    _fields_ = [
        *_HEAD, ("type", c_int), ("data", c_void_p), ("rank", c_int64), ("dims", POINTER(c_int64)),
    ]  # fmt: skip


class _Buffers(ctypes.Structure):
    _fields_ = [
        *_HEAD, ("size", c_int64), ("types", c_void_p), ("each", POINTER(POINTER(_Buffer))),
    ]  # fmt: skip


class _Version(ctypes.Structure):
    _fields_ = [*_HEAD, ("major", c_int), ("minor", c_int)]


class _Metadata(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("version", _Version)]  # and what stays zero


class _Extension(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t), ("type", c_int), ("next", c_void_p),
        ("metadata", POINTER(_Metadata)),
    ]  # fmt: skip


class _Error(ctypes.Structure):
    _fields_ = [*_HEAD, ("message", c_char_p), ("code", c_int)]


class _Api(ctypes.Structure):
    _fields_ = [
        *_HEAD, ("version", _Version), ("internal", c_void_p),
        ("new_error", ctypes.CFUNCTYPE(c_void_p, POINTER(_Error))),
    ]  # fmt: skip


class _Frame(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t), ("extension", POINTER(_Extension)), ("api", POINTER(_Api)),
        ("context", c_void_p), ("stage", c_int), ("arguments", _Buffers), ("results", _Buffers),
    ]  # fmt: skip


_Handler = ctypes.CFUNCTYPE(c_void_p, POINTER(_Frame))
_functions: dict[str, Callable] = {}
_handlers: list[Any] = []  # XLA holds their addresses for as long as the process lives


def call(
    name: str,
    fill: Callable[[np.ndarray, np.ndarray], None],
    result: jax.ShapeDtypeStruct,
    argument: jax.Array,
) -> jax.Array:
    """fill(argument, out) from inside compiled code: both [..., width] are XLA's own memory.

    name: says what `fill` computes; of two functions of one name the later is called by programs
    of both. `fill` must be a pure function of its argument. Batched as `broadcast_all` says.
    """
    if name not in _functions:
        handler = _Handler(lambda frame: _handle(name, frame.contents))
        _handlers.append(handler)
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(handler), platform="cpu")
    _functions[name] = fill
    return jax.ffi.ffi_call(name, result, vmap_method="broadcast_all")(argument)


def _handle(name, frame):
    """One call by XLA; returns the address of an error, or None."""
    extension = frame.extension
    if extension and extension.contents.type == _METADATA:  # XLA asks which interface this is for
        version, ours = frame.api.contents.version, extension.contents.metadata.contents.version
        ours.major, ours.minor = version.major, version.minor
        return None
    try:
        _functions[name](_array(frame.arguments), _array(frame.results))
    except Exception:
        text = traceback.format_exc().encode()
        error = _Error(ctypes.sizeof(_Error), None, text, _INTERNAL)
        return frame.api.contents.new_error(ctypes.byref(error))
    return None


def _array(buffers):
    """The only one of some buffers, as an array on its memory."""
    buffer = buffers.each[0].contents
    shape, kind = tuple(buffer.dims[: buffer.rank]), _TYPES[buffer.type]
    memory = (c_char * (math.prod(shape) * kind.itemsize)).from_address(buffer.data)
    return np.frombuffer(memory, kind).reshape(shape)
