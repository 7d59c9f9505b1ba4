"""Conversations and the chats that hold them: what goes on where, and what is removed in the end.

`Conversation` finds the chat that a request goes on with and lets the next one go on, by the hashes of `histories`;
`ChatRegistry` shares what is known of chats with every process on the account store; `Tidier` removes those that are of
no more use. Knows accounts and protocols by their interface, no message's words but by their hash, and no LiteLLM.
"""

from .conversation import Conversation
from .registry import ChatRegistry
from .tidying import OpenedChat, Tidier

__all__ = ["ChatRegistry", "Conversation", "OpenedChat", "Tidier"]
