"""The redirector's room: a mitmproxy addon for tools whose base URL can't be changed.

Not built yet; it shares nothing with `kimi_provider` and will import only the standard library and mitmproxy.
"""
