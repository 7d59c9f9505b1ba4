"""Kimi's web chat as a LiteLLM provider.

`import kimi_provider.litellm_bridge` registers the provider `kimi/` with LiteLLM. This package itself imports nothing
heavy; start reading at `engine.py`.
"""
