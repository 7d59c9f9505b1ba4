"""Gemini's API for our models: `inbound` (its requests -> chat requests) and `outbound` (chat answers -> its responses)
are pure; `routes` puts them on a LiteLLM proxy, whose modules only it imports.
"""
