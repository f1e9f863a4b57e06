"""Training: plain Lightning modules around transformers, for every task alike.

Trainer(max_epochs=1).fit(TextModule("bert-base-uncased"), TextData("reviews.csv"))
"""

from suffuse.training.corpus import Split
from suffuse.training.data import Loading, TextData
from suffuse.training.losses import LossOptions
from suffuse.training.models import TextNetwork, load_backbone
from suffuse.training.module import TextModule
from suffuse.training.optimization import Optimization
from suffuse.training.streaming import Streaming
from suffuse.training.transfer import Lora, Transfer

__all__ = [
    "Loading",
    "Lora",
    "LossOptions",
    "Optimization",
    "Split",
    "Streaming",
    "TextData",
    "TextModule",
    "TextNetwork",
    "Transfer",
    "load_backbone",
]
