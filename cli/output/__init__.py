"""How answers look: tables, templates, words for times and sizes, progress."""
