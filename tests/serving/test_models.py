"""The digits, their models, and model files that are not to be trusted."""

import pickle
import zipfile

import numpy as np
import pytest

from canarykit.errors import PlanError
from canarykit.serving import digits, storage


def test_held_out_images_were_never_seen():
    """
    Training and held-out images are the whole data set, once each.
    """
    train, test = digits.training()[0], digits.held_out()[0]
    assert (train.shape, test.shape) == ((897, 64), (900, 64))
    # The data set itself holds a few images twice; none of the split's making.
    seen = {image.tobytes() for image in train}
    assert sum(image.tobytes() in seen for image in test) <= 2


def test_each_bad_canary_is_bad_in_its_own_way(models):
    """
    The good model is better, the wrong one worse; the failing one raises for some images; the slow one does more work.
    """
    images, labels = digits.held_out()
    loaded = {kind: storage.load(path, ["sklearn.tree._tree.Tree"]) for kind, path in models.items()}
    accuracy = {kind: np.mean(loaded[kind].predict(images) == labels) for kind in ("stable", "good", "slow", "wrong")}
    assert accuracy["good"] > accuracy["stable"] + 0.04
    assert accuracy["wrong"] < accuracy["stable"] - 0.05
    assert accuracy["slow"] > accuracy["stable"]
    assert len(loaded["slow"].estimators_) == 60
    failing = loaded["failing"]
    refused = 0
    for image in images:
        try:
            failing.predict([image])
        except ValueError:
            refused += 1
    assert 0.02 < refused / len(images) < 0.10


def test_an_unknown_kind_is_refused():
    """
    The message lists the kinds.
    """
    with pytest.raises(PlanError, match="choose one of stable, good, slow, failing, wrong"):
        digits.model("splendid")


def test_files_that_are_no_models_are_refused(tmp_path):
    """
    Missing, text, a pickle, a zip of something else: never a traceback of a library, never unpickled.
    """
    with pytest.raises(PlanError, match="there is no model file"):
        storage.load(tmp_path / "missing.skops")
    text, pickled, archive = tmp_path / "text.skops", tmp_path / "pickle.skops", tmp_path / "zip.skops"
    text.write_text("not a model")
    pickled.write_bytes(pickle.dumps({"a": 1}))
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("readme.txt", "hello")
    for path in (text, pickled, archive):
        with pytest.raises(PlanError, match="skops file"):
            storage.load(path)


def test_a_damaged_model_is_refused(models, tmp_path):
    """
    Half a file does not load, and says so.
    """
    half = tmp_path / "half.skops"
    content = models["good"].read_bytes()
    half.write_bytes(content[: len(content) // 2])
    with pytest.raises(PlanError, match=r"half\.skops"):
        storage.load(half)


def test_types_that_nobody_trusts_are_named(tmp_path):
    """
    A type that is neither scikit-learn's nor the kit's is refused by name, and loaded when it is trusted.
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer
    from sklearn.svm import SVC

    images, labels = digits.training()
    path = tmp_path / "strange.skops"
    storage.save(make_pipeline(FunctionTransformer(zipfile.is_zipfile), SVC()), path)
    with pytest.raises(PlanError, match=r"not trusted: .*is_zipfile.*Version\(trusted="):
        storage.load(path)
    assert storage.load(path, ["zipfile.is_zipfile"]) is not None
    assert len(images) == len(labels)


def test_equal_models_are_equal_files(tmp_path):
    """
    Trained and written twice: the same bytes, so that a build has one name wherever it comes from.
    """
    for kind in ("stable", "failing"):
        paths = [tmp_path / f"{kind}-{number}.skops" for number in range(2)]
        for path in paths:
            storage.save(digits.model(kind), path)
        assert paths[0].read_bytes() == paths[1].read_bytes()
