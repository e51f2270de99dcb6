"""What agents written in Python keep: the threads of their conversations, and what they remember."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

seq = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    add_threads()
    add_memories()
    add_budgets()


def add_threads() -> None:
    op.create_table(
        "threads",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("agent", sa.Text, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
    )
    op.create_table(
        "stretches",
        sa.Column("id", seq, primary_key=True, autoincrement=True),
        sa.Column("messages", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
    )
    op.create_table(
        "places",
        sa.Column("thread", sa.String(32), primary_key=True),
        sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("turn", sa.Text, nullable=False),
        sa.Column("stretch", seq, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("places_by_stretch", "places", ["stretch"])


def add_memories() -> None:
    op.create_table(
        "memories",
        sa.Column("id", seq, primary_key=True, autoincrement=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("user", sa.Text, nullable=False),
        sa.Column("agent", sa.Text, nullable=False),
        sa.UniqueConstraint("tenant", "user", "agent", name="memories_by_name"),
    )
    op.create_table(
        "blocks",
        sa.Column("memory", seq, primary_key=True, autoincrement=False),
        sa.Column("label", sa.Text, primary_key=True),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("changed", sa.Float, nullable=False),
    )
    op.create_table(
        "passages",
        sa.Column("id", seq, primary_key=True, autoincrement=True),
        sa.Column("memory", seq, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("tags", sa.Text, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
    )
    op.create_index("passages_by_memory", "passages", ["memory", "id"])
    if op.get_bind().dialect.name == "sqlite":
        op.execute("CREATE VIRTUAL TABLE passage_words USING fts5(words, tokenize = 'unicode61 remove_diacritics 0')")
    else:
        op.execute("CREATE TABLE passage_words (passage bigint PRIMARY KEY, words tsvector NOT NULL)")
        op.execute("CREATE INDEX passage_words_by_word ON passage_words USING gin (words)")


def add_budgets() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("budget", sa.Text, nullable=False),
        sa.Column("unit", sa.String(16), nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("period", sa.String(16), nullable=False),
        sa.Column("spent", sa.BigInteger, nullable=False),
        sa.Column("held", sa.BigInteger, nullable=False),
        sa.Column("used", sa.Float, nullable=False),
    )
    op.create_index("accounts_by_use", "accounts", ["used"])
    op.create_table(
        "holds",
        sa.Column("turn", sa.Text, primary_key=True),
        sa.Column("account", sa.String(32), primary_key=True),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("used", sa.BigInteger, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
    )
    op.create_index("holds_by_account", "holds", ["account"])
