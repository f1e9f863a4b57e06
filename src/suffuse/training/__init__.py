"""Training: plain Lightning modules around transformers, for every task alike.

Trainer(max_epochs=1).fit(TextModule("bert-base-uncased"), TextData("reviews.csv"))
"""

from suffuse.training.data import Split, TextData
from suffuse.training.models import TextNetwork, load_backbone
from suffuse.training.module import Optimization, TextModule

__all__ = ["Optimization", "Split", "TextData", "TextModule", "TextNetwork", "load_backbone"]
