"""What people look at: summaries, explanations, pictures."""
