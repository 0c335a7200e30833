"""What is said of a canvas: names, captions, falsehoods, questions, and the words they are made of."""
