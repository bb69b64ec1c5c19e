"""A page for people: templates, their style sheet, and what they show. It works without scripts, and has none."""
