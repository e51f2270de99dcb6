"""The tables. SQLite and Postgres hold the same ones; `migrations/` makes them.

A conversation is one history at a backend. Its branches are conversations too: they share its `family`. The turns are
both the ledger and the tree of nodes by which a transcript finds its conversation: a turn is the node *after* its
reply. Moments are seconds since 1970, and only for showing and for tidying up; what must not depend on anybody's clock
(who comes first, who is alive) goes by `seq` and `beat`.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

Seq = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only in a column that is exactly INTEGER

conversations = Table(
    "conversations",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("scope", String(32), nullable=False),  # whose, and which agent's
    Column("family", String(32), nullable=False),  # the conversation from which this one was branched, at last
    Column("principal", Text, nullable=False),
    Column("backend", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("kind", String(16), nullable=False),  # chat, stateless, temporary, snapshot, own, doomed
    Column("thread", Text, nullable=False),  # the backend's own id; empty until it has been made
    Column("head", Text, nullable=False),  # the turn after which the thread stands; empty at its beginning
    Column("system", String(32), nullable=False),  # fingerprint of the instructions it was given last
    Column("pin", Text, nullable=False),  # the caller's own name for it, if there is one
    Column("metadata", Text, nullable=False),  # JSON, the caller's
    Column("created", Float, nullable=False),
    Column("used", Float, nullable=False),
    Column("struck", Text, nullable=False, server_default=""),  # JSON: the items that were taken back, by their place
    Index("conversations_by_head", "head"),
    Index("conversations_by_family", "family"),
    Index("conversations_by_scope", "scope", "used"),
    Index("conversations_by_principal", "principal", "used"),
    Index("conversations_by_use", "kind", "used"),
)

pins = Table(
    "pins",
    metadata,
    Column("scope", String(32), primary_key=True),
    Column("pin", Text, primary_key=True),
    Column("conversation", String(32), nullable=False),  # the branch in which it was used last
    Column("family", String(32), nullable=False),
)

turns = Table(
    "turns",
    metadata,
    Column("seq", Seq, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("scope", String(32), nullable=False),
    Column("conversation", String(32), nullable=False),
    Column("parent", Text, nullable=False),  # the turn before it; empty for the first
    Column("state", String(16), nullable=False),
    Column("owner", Text, nullable=False),  # the process at work on it
    Column("left", Boolean, nullable=False),  # its client went away before the last frame
    Column("dedupe", String(64), unique=True),  # from an explicit idempotency key or message id
    Column("request", String(64), nullable=False),  # fingerprint of the whole request
    Column("message", Text, nullable=False),  # the client's id for the answer, if it said one
    Column("after", String(32)),  # the chain of everything said up to and with the reply
    Column("spoken", String(32)),  # the chain of the agent's side alone
    Column("pair", String(32)),  # of the last two replies
    Column("base", Text, nullable=False),  # JSON: the chains before it, by which it is completed after a crash
    Column("plain", Boolean, nullable=False),  # text alone up to here: a seed holds all of it
    Column("input", Text, nullable=False),  # JSON
    Column("reply", Text, nullable=False),  # JSON; of a cancelled turn what its client saw
    Column("run", Text, nullable=False),  # the backend's id of the run
    Column("error", Text, nullable=False),  # the public code
    Column("created", Float, nullable=False),
    Column("ended", Float, nullable=False),  # 0 while it runs
    Column("trouble", Text, nullable=False, server_default=""),  # what went wrong, in words
    Index("turns_by_conversation", "conversation", "state", "seq"),
    Index("turns_by_state", "state", "owner"),
    Index("turns_by_parent", "parent"),
    Index("turns_by_request", "scope", "request"),
    Index("turns_by_after", "scope", "after"),
    Index("turns_by_spoken", "scope", "spoken"),
    Index("turns_by_pair", "scope", "pair"),
    Index("turns_by_owner", "owner", "state"),
)

receipts = Table(
    "receipts",
    metadata,
    Column("id", Text, primary_key=True),  # the turn as it was asked for
    Column("principal", Text, nullable=False),
    Column("turn", Text, nullable=False),  # the one that answers it: itself, unless it repeats another
    Column("body", Text, nullable=False),  # the protocol's own
    Column("events", Text, nullable=False),  # JSON: what was said, as it was said, where it must be heard so again
    Column("unwanted", Boolean, nullable=False),  # it is to be cancelled, by whichever process runs it
    Column("created", Float, nullable=False),
    Index("receipts_by_turn", "turn"),
    Index("receipts_by_age", "created"),
)

owners = Table(
    "owners",
    metadata,
    Column("id", Text, primary_key=True),
    Column("beat", Integer, nullable=False),  # counts up while the process lives
    Column("started", Float, nullable=False),
)

# --- of agents that run in this process ----------------------------------------------------------------------------

threads = Table(
    "threads",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("agent", Text, nullable=False),
    Column("created", Float, nullable=False),
)

stretches = Table(  # what one turn added; never changed, so that the threads of a fork can share it
    "stretches",
    metadata,
    Column("id", Seq, primary_key=True, autoincrement=True),
    Column("messages", Text, nullable=False),  # JSON, the engine's own
    Column("state", Text, nullable=False),  # JSON, the backend's own
)

places = Table(  # which stretch stands where in a thread
    "places",
    metadata,
    Column("thread", String(32), primary_key=True),
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("turn", Text, nullable=False),
    Column("stretch", Seq, nullable=False),
    Index("places_by_stretch", "stretch"),
    sqlite_with_rowid=False,
)

memories = Table(
    "memories",
    metadata,
    Column("id", Seq, primary_key=True, autoincrement=True),
    Column("tenant", Text, nullable=False),
    Column("user", Text, nullable=False),
    Column("agent", Text, nullable=False),
    UniqueConstraint("tenant", "user", "agent", name="memories_by_name"),
)

blocks = Table(
    "blocks",
    metadata,
    Column("memory", Seq, primary_key=True, autoincrement=False),
    Column("label", Text, primary_key=True),
    Column("text", Text, nullable=False),
    Column("version", Integer, nullable=False),  # how often it was edited
    Column("changed", Float, nullable=False),
)

passages = Table(  # their words are in `passage_words`, as each database keeps such: see `words`
    "passages",
    metadata,
    Column("id", Seq, primary_key=True, autoincrement=True),
    Column("memory", Seq, nullable=False),
    Column("text", Text, nullable=False),
    Column("tags", Text, nullable=False),  # JSON
    Column("created", Float, nullable=False),
    Index("passages_by_memory", "memory", "id"),
)

# --- what may be spent ---------------------------------------------------------------------------------------------

accounts = Table(  # one holder's part of a budget in one period; money is counted in millionths of a dollar
    "accounts",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("budget", Text, nullable=False),
    Column("unit", String(16), nullable=False),
    Column("holder", Text, nullable=False),  # whose: a key, a user, an agent; empty for all together
    Column("period", String(16), nullable=False),  # 2026-01-31, 2026-01; empty for ever
    Column("spent", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),  # the sum of its holds
    Column("used", Float, nullable=False),
    Index("accounts_by_use", "used"),
)

holds = Table(  # what a running turn has set aside
    "holds",
    metadata,
    Column("turn", Text, primary_key=True),
    Column("account", String(32), primary_key=True),
    Column("amount", BigInteger, nullable=False),
    Column("used", BigInteger, nullable=False),  # what of it is spent already, as far as that has been noted
    Column("model", Text, nullable=False),
    Column("owner", Text, nullable=False),  # the process at work on the turn
    Column("created", Float, nullable=False),
    Index("holds_by_account", "account"),
)
