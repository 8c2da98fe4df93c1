from lorasa_jax.report.command import main

main()
