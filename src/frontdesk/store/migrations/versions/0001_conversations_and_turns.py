"""Conversations, their pins, the ledger of turns, and who is at work on them."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    seq = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "conversations",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("scope", sa.String(32), nullable=False),
        sa.Column("family", sa.String(32), nullable=False),
        sa.Column("principal", sa.Text, nullable=False),
        sa.Column("backend", sa.Text, nullable=False),
        sa.Column("agent", sa.Text, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("thread", sa.Text, nullable=False),
        sa.Column("head", sa.Text, nullable=False),
        sa.Column("system", sa.String(32), nullable=False),
        sa.Column("pin", sa.Text, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("used", sa.Float, nullable=False),
    )
    op.create_index("conversations_by_head", "conversations", ["head"])
    op.create_index("conversations_by_family", "conversations", ["family"])
    op.create_index("conversations_by_scope", "conversations", ["scope", "used"])
    op.create_index("conversations_by_principal", "conversations", ["principal", "used"])
    op.create_index("conversations_by_use", "conversations", ["kind", "used"])
    op.create_table(
        "pins",
        sa.Column("scope", sa.String(32), primary_key=True),
        sa.Column("pin", sa.Text, primary_key=True),
        sa.Column("conversation", sa.String(32), nullable=False),
        sa.Column("family", sa.String(32), nullable=False),
    )
    op.create_table(
        "turns",
        sa.Column("seq", seq, primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("scope", sa.String(32), nullable=False),
        sa.Column("conversation", sa.String(32), nullable=False),
        sa.Column("parent", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("left", sa.Boolean, nullable=False),
        sa.Column("dedupe", sa.String(64), unique=True),
        sa.Column("request", sa.String(64), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("after", sa.String(32)),
        sa.Column("spoken", sa.String(32)),
        sa.Column("pair", sa.String(32)),
        sa.Column("base", sa.Text, nullable=False),
        sa.Column("plain", sa.Boolean, nullable=False),
        sa.Column("input", sa.Text, nullable=False),
        sa.Column("reply", sa.Text, nullable=False),
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("ended", sa.Float, nullable=False),
    )
    op.create_index("turns_by_conversation", "turns", ["conversation", "state", "seq"])
    op.create_index("turns_by_state", "turns", ["state", "owner"])
    op.create_index("turns_by_parent", "turns", ["parent"])
    op.create_index("turns_by_request", "turns", ["scope", "request"])
    op.create_index("turns_by_after", "turns", ["scope", "after"])
    op.create_index("turns_by_spoken", "turns", ["scope", "spoken"])
    op.create_index("turns_by_pair", "turns", ["scope", "pair"])
    op.create_index("turns_by_owner", "turns", ["owner", "state"])
    op.create_table(
        "owners",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("beat", sa.Integer, nullable=False),
        sa.Column("started", sa.Float, nullable=False),
    )
