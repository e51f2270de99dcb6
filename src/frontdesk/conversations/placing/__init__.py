"""Placing a request: which conversation it belongs to, and where in it.

In this order: the tool calls it answers; the turn it says it comes after; the name it gives (a pin); what was said
before (lineage); else it is new.
What decides is the transcript, compared with the replies we produced: a request goes on where a conversation stands, or
branches off where it once stood. All of it runs within one transaction of the store, and calls nobody.

`spots` has the words: what is asked, and what is found. `ways` tries, in order, what each of these finds:

    references   by what the request answers, or says it comes after
    own_thread   in the one thread of an agent that has no others
    names        by the conversation's name
    transcript   by what was said

They share `branches` (go on, or branch off), `standing` (the end of a conversation, and who is at work there), and what
is to be told besides: `owed` (what the agent never heard) and `notes` (what was put there, and taken back).
"""

from frontdesk.conversations.placing.spots import Ask, Fork, Spot, UnknownHistory
from frontdesk.conversations.placing.ways import spot

__all__ = ["Ask", "Fork", "Spot", "UnknownHistory", "spot"]
