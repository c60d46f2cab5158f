"""Published checkpoints as assets: `config.json`, safetensors and tokenizer, as `save_pretrained` writes them.

    pretrained_from_hub, pretrained_from_files   pull.py

Whatever takes `pretrained: PATH` takes the folder of such an asset. `choice` decides which files of a source are
needed, `hub` lists and fetches them, `convert` rewrites weights that are no safetensors.
"""
