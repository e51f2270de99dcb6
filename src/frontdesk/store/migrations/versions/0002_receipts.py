"""Requests that their callers ask about later; what went wrong with a turn, in words; things taken back."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "receipts",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("principal", sa.Text, nullable=False),
        sa.Column("turn", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("events", sa.Text, nullable=False),
        sa.Column("unwanted", sa.Boolean, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
    )
    op.create_index("receipts_by_turn", "receipts", ["turn"])
    op.create_index("receipts_by_age", "receipts", ["created"])
    op.add_column("turns", sa.Column("trouble", sa.Text, nullable=False, server_default=""))
    op.add_column("conversations", sa.Column("struck", sa.Text, nullable=False, server_default=""))
