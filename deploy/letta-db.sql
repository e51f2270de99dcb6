-- Letta keeps embeddings in columns of this type.
CREATE EXTENSION IF NOT EXISTS vector;
