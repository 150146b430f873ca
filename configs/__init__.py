"""One commented YAML file a model or experiment."""
