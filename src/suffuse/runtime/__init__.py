"""Answering from a bundle: ONNX Runtime sessions, batches by tokens, one answer a row, no torch."""

from suffuse.runtime.bodies import Reply
from suffuse.runtime.predictor import Predictor, load
from suffuse.runtime.service import Service
from suffuse.runtime.session import Session

__all__ = ["Predictor", "Reply", "Service", "Session", "load"]
