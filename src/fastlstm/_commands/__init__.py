"""The sub-commands of ``fastlstm``."""
