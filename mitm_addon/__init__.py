"""The redirector: tools whose base URL can't be changed get their answers from a gateway, not from their provider.

A mitmproxy addon (`script.py`, `redirect.py`) and a command that runs one tool behind it (`kimi-mitm`). Needs the
standard library and mitmproxy only, shares nothing with `kimi_provider` and reaches it over HTTP alone. Promises: a
redirected call never touches its provider, no provider key reaches the gateway, the gateway's key reaches nobody else,
hosts that are not listed are never decrypted, and what goes wrong ends in an error, not in a call to the provider.
"""
