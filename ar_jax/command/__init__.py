"""What a person types: configs by name, keys, checks before the first step."""
