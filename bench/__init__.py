"""What the gateway costs, beside what a user would take instead: LiteLLM's built-in `openai/` provider.

`python -m bench`, or `make bench`. Nothing here is shipped. Every figure is measured in interleaved rounds on the same
proxy process (one worker), printed beside its limit; a miss is exit code 1. docs/performance.md says what the
figures mean.

The rooms: `plan` (what is sent, known to both ends), `upstream` (one server process that speaks both protocols),
`processes` (it and the gateways, as children), `load` (the client), `decoder`, `figures` (what is measured),
`report` (rounds -> a table).
"""
