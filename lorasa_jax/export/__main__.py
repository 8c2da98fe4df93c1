from lorasa_jax.export.command import main

main()
