"""Evaluation of retrieval, question answering and captions: metrics, reranking, statistical comparison."""
