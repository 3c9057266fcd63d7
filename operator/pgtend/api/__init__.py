"""What users write and read: one pydantic model per kind, and the types they share. Imports nothing else of pgtend."""
