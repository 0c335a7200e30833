"""What a trained model is used for: features, matching scores, answers, captions and attention, in one call each."""
