"""What a text classifier without a network reaches: the figure that a trained model has to be better than."""

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from suffuse.training import TextData


def tf_idf(data: TextData) -> Pipeline:
    """Logistic regression over TF-IDF of words and word pairs, its strength chosen on validation rows."""
    texts, labels = {}, {}
    for side in ("train", "validation"):
        texts[side] = [row["text"] for _, _, row in data.rows(side)]
        labels[side] = [row["label"] for _, _, row in data.rows(side)]
    fitted = [
        make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True), LogisticRegression(C=c, max_iter=1000)
        ).fit(texts["train"], labels["train"])
        for c in (0.5, 2.0, 8.0, 32.0)
    ]
    return max(fitted, key=lambda model: model.score(texts["validation"], labels["validation"]))
