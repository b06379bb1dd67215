import numpy as np
import polars as pl
import pytest
from sklearn.decomposition import PCA

from jaxconcepts import store
from jaxconcepts.figures.regression import projection
from jaxconcepts.figures.tables import MissingData, Study


@pytest.fixture(scope="module")
def study(workdir):
    return Study(store.metrics(workdir), store.runs(workdir), store.config(workdir))


@pytest.fixture(scope="module")
def snapshots(workdir):
    return [projection.Snapshot(one.step, one.hidden[1], one.concepts) for one in store.hidden(workdir)]


def test_pca_is_scikit_learns():
    points = np.random.default_rng(0).normal(size=(60, 9)) * np.arange(1, 10) + 1e3
    expected = PCA(n_components=2, svd_solver="full").fit(points)
    flip = np.sign(expected.components_[np.arange(2), np.abs(expected.components_).argmax(axis=1)])
    np.testing.assert_allclose(projection.pca(points), expected.transform(points) * flip, atol=1e-9)


@pytest.mark.parametrize("shape", [(1, 5), (7, 1), (2, 2)])
def test_pca_of_few_points(shape):
    assert projection.pca(np.ones(shape)).shape == (shape[0], 2)


def test_each_panel_shows_its_points_and_its_cd(study, snapshots):
    figure = projection.projection(study, "r1", snapshots)
    titles = [axis.get_title() for axis in figure.axes]
    layers = [int(title.split("\n")[0].removeprefix("layer ")) for title in titles[:5]]
    steps = [snapshot.step for snapshot in snapshots]
    cd = study.metrics.filter(pl.col("run") == "r1", pl.col("metric") == "cd", pl.col("token") == "x")
    cd = cd.filter(pl.col("concept").is_null())
    assert study.best_cd("r1")[1][-1] in layers
    for row, step in enumerate(steps):
        for column, layer in enumerate(layers):
            value = cd.filter(pl.col("step") == step, pl.col("layer") == layer)["value"].item()
            assert titles[5 * row + column].endswith(f"CD {value:.2f}")
            scores = projection.pca(snapshots[row].hidden[layer])
            for line in figure.axes[5 * row + column].lines:
                concept = int(line.get_gid().removeprefix("concept "))
                np.testing.assert_array_equal(np.stack(line.get_data(), 1), scores[snapshots[row].concepts == concept])


def test_a_panel_without_a_stored_cd_says_so(study, snapshots):
    without = Study(study.metrics.filter(pl.col("metric") != "cd"), study.runs, study.config)
    figure = projection.projection(without, "r1", snapshots[:1])
    assert all(axis.get_title().endswith("CD not measured") for axis in figure.axes)


def test_hidden_states_of_a_diverged_run(study, snapshots):
    broken = snapshots[0]._replace(hidden=np.full_like(snapshots[0].hidden, np.nan))
    figure = projection.projection(study, "r1", [broken])
    assert [text.get_text() for text in figure.axes[0].texts] == ["not finite"]


def test_bad_input(study, snapshots):
    with pytest.raises(ValueError, match="method must be one of pca, umap, got 'tsne'"):
        projection.projection(study, "r1", snapshots, method="tsne")
    with pytest.raises(MissingData, match="no hidden states stored"):
        projection.projection(study, "r1", [])


@pytest.mark.slow
@pytest.mark.skipif(not projection.umap_installed(), reason="umap-learn is not installed (the umap extra)")
def test_umap_keeps_clusters_apart_and_repeats_itself():
    labels = np.arange(90) % 3
    points = np.random.default_rng(0).normal(size=(90, 8)) + 20 * np.eye(8)[labels]
    scores = projection.umap(points)
    np.testing.assert_array_equal(scores, projection.umap(points))
    centres = np.stack([scores[labels == k].mean(0) for k in range(3)])
    spread = max(np.linalg.norm(scores[labels == k] - centres[k], axis=1).max() for k in range(3))
    assert min(np.linalg.norm(centres[i] - centres[j]) for i, j in ((0, 1), (0, 2), (1, 2))) > 2 * spread
