"""What a fitted model of effects given images can be asked."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from sklearn.utils.validation import check_is_fitted

from causalfair._core.base import CausalEstimator
from causalfair._core.random import child_seed
from causalfair._core.typing import FloatArray, IntArray
from causalfair.exceptions import DataError, ParameterError
from causalfair.imagery._design import AnyCompressor, join
from causalfair.imagery._ranking import METRICS, RankingEvaluation, evaluate_priorities
from causalfair.imagery._sequence import as_sequence
from causalfair.imagery._support import Calendar, SupportReference

__all__ = ["FittedEffects", "feature_names", "first_cluster"]


class FittedEffects(CausalEstimator):
    """Predictions, evaluation, support and transport; ``fit`` is the subclass's."""

    data_source_: str
    effect_model_: Any
    representation_: Any
    compressor_: AnyCompressor | None
    placebo_: bool
    calendar_: Calendar | None
    scheme: str
    _priority: FloatArray
    _folds: IntArray
    _seed: Any
    _tabular_names: tuple[str, ...]
    _support_reference: SupportReference | None
    _propensity_note: str
    _cluster_note: str

    def predict(self, images: Any = None, X: Any = None) -> FloatArray:
        """Effect of the treatment given images and covariates.

        Parameters
        ----------
        images : ImageSequence or array of shape (n, T, H, W, C), optional
            New places, with the bands and scaling of ``fit``.
        X : frame or array of shape (n_units, p), optional
            Their covariates. With neither, the units of the trial, each by a model that did not see
            it.

        Returns
        -------
        ndarray of shape (n_units,)
            Effects in units of the outcome.

        Raises
        ------
        DataError
            What the model was fitted with is missing, or bands or scaling differ.
        """
        check_is_fitted(self)
        if images is None and X is None:
            effect: FloatArray = self.effect_model_.predict(None)
            return effect
        new: FloatArray = self.effect_model_.predict(self._new_frame(images, X, "predict"))
        return new

    def predict_interval(
        self, images: Any = None, X: Any = None, level: float = 0.95
    ) -> FloatArray:
        """Pointwise intervals of the effect, where the learner has them.

        Parameters
        ----------
        images, X : optional
            As for :meth:`predict`.
        level : float, default 0.95
            Confidence level.

        Returns
        -------
        ndarray of shape (n_units, 2)
            Lower and upper ends.

        Raises
        ------
        ParameterError
            The learner has no intervals.
        """
        check_is_fitted(self)
        if not hasattr(self.effect_model_, "predict_interval"):
            raise ParameterError(
                f"ImageSequenceCATE.predict_interval: {type(self.effect_model_).__name__} has no "
                "intervals; use CausalForest."
            )
        rows = (
            None if images is None and X is None else self._new_frame(images, X, "predict_interval")
        )
        ends: FloatArray = self.effect_model_.predict_interval(rows, level)
        return ends

    def _new_frame(self, images: Any, X: Any, method: str) -> Any:
        owner = f"ImageSequenceCATE.{method}"
        tabular = None
        if self._tabular_names:
            if X is None:
                raise DataError(
                    f"{owner} needs X: the model uses {', '.join(self._tabular_names)}."
                )
            tabular = self._encoder.transform(X, owner=owner)
        elif X is not None:
            raise DataError(f"{owner} got X, but the model uses images only.")
        if self.representation_ is None:
            if images is not None:
                raise DataError(f"{owner} got images, but the model uses covariates only.")
            return tabular
        if images is None:
            raise DataError(f"{owner} needs images: the model uses {self.data_source_}.")
        raw, rows = self._raw(images, owner)
        if tabular is not None and len(tabular) != len(rows):
            raise DataError(f"{owner}: {len(rows)} units have images, X has {len(tabular)} rows.")
        compressor = cast("AnyCompressor", self.compressor_)
        values = compressor.transform(raw)[rows]
        return join(
            values, compressor.names(feature_names(self.representation_, raw.shape[1])), tabular
        )

    def _raw(self, images: Any, owner: str) -> tuple[FloatArray, IntArray]:
        sequence = as_sequence(images, owner=owner)
        if "image" in self.data_source_:
            sequence = sequence.latest()
        raw = np.asarray(self.representation_.transform(sequence), dtype=np.float64)  # type: ignore[union-attr]
        return raw, sequence.row_of_unit

    def evaluate(self, metrics: Any = METRICS) -> RankingEvaluation:
        """Test whether treating by predicted effect beats treating at random.

        Parameters
        ----------
        metrics : str or sequence of {"autoc", "qini"}
            AUTOC favours effects concentrated in a few units, QINI effects spread over many.

        Returns
        -------
        RankingEvaluation
            Table with estimate, standard error, ratio and p-value; ``plot()`` draws the curve.

        Raises
        ------
        IdentificationError
            A fold has fewer than ten clusters.
        """
        check_is_fitted(self)
        names = (metrics,) if isinstance(metrics, str) else tuple(metrics)
        sample = self.effect_model_.sample_
        estimates, curves = {}, {}
        for name in names:
            estimates[name], curves[name] = evaluate_priorities(
                {"": self._priority}, sample.scores, self._folds, metric=name,
                scheme=self.scheme, cluster=first_cluster(sample.cluster),
                sample_weight=sample.sample_weight, seed=self._seed,
            )  # fmt: skip
        evaluated = np.unique(self._folds[self._folds >= 0])
        flat = sum(np.ptp(self._priority[self._folds == fold]) == 0 for fold in evaluated)
        return RankingEvaluation(
            estimates, self.scheme, curves, int((self._folds >= 0).sum()), int(flat), evaluated.size
        )

    def group_average_effects(self, n_groups: int = 5) -> Any:
        """Average effects of groups of units from the lowest to the highest predicted effect.

        Parameters
        ----------
        n_groups : int, default 5
            Groups of equal size within each fold of :meth:`evaluate`.

        Returns
        -------
        causalfair.forest.GroupEffects
            Effects of units ranked by models that did not see them (``scheme="oob"``: by the model
            that made the scores, a heuristic); ``plot()`` and ``plot("calibration")`` draw them.
        """
        from causalfair.forest import group_average_effects

        check_is_fitted(self)
        sample = self.effect_model_.sample_
        return group_average_effects(
            np.where(self._folds >= 0, self._priority, np.nan), sample.scores, n_groups=n_groups,
            fold=self._folds, cluster=first_cluster(sample.cluster),
            sample_weight=sample.sample_weight,
            priority_from="out_of_bag" if self.scheme == "oob" else "other_data",
        )  # fmt: skip

    def calibration_test(self) -> Any:
        """Did the model find the mean effect and its spread? Both terms are one if perfect."""
        check_is_fitted(self)
        return self.effect_model_.calibration_test()

    def average_effect(self, target: str = "all", *, subset: Any = None) -> Any:
        """Doubly robust average effect over all, treated, control or overlap-weighted units.

        Parameters
        ----------
        target : {"all", "treated", "control", "overlap"}, default "all"
            Population.
        subset : bool or int array, optional
            Units.

        Returns
        -------
        causalfair.inference.Estimates
            One term.
        """
        check_is_fitted(self)
        return self.effect_model_.average_effect(target, subset=subset)

    def best_linear_projection(self, characteristics: Any = None) -> Any:
        """Linear projection of the effect on characteristics of the units, such as land cover.

        Parameters
        ----------
        characteristics : frame or array of shape (n_units, k), optional
            Interpretable columns.

        Returns
        -------
        causalfair.inference.Estimates
            Terms ``(intercept)`` and one a column.
        """
        check_is_fitted(self)
        return self.effect_model_.best_linear_projection(characteristics)

    def block_importance(self) -> Any:
        """Importance of tabular data and of each scale and pooling of the images.

        Returns
        -------
        pandas.Series
            Shares of splits by block, largest first; principal components hand theirs on to the
            features they are made of, by squared loadings.

        Raises
        ------
        ParameterError
            The learner has no importance of variables.
        """
        from causalfair.imagery._importance import block_importance

        check_is_fitted(self)
        model = self.effect_model_
        if not hasattr(model, "variable_importance_"):
            raise ParameterError(
                f"ImageSequenceCATE.block_importance: {type(model).__name__} has no importance of "
                "variables; use CausalForest."
            )
        if self.compressor_ is None:
            return block_importance(model.variable_importance_, None, ())
        loadings = self.compressor_.loadings()
        names = feature_names(self.representation_, loadings.shape[1])
        return block_importance(model.variable_importance_, loadings, names)

    def nearest(self, images: Any, k: int = 5) -> Any:
        """Places of the trial whose images are most like those of other places.

        Parameters
        ----------
        images : ImageSequence or array of shape (G, T, H, W, C)
            Other places.
        k : int, default 5
            How many of the trial for each.

        Returns
        -------
        pandas.DataFrame
            Columns ``row`` (place of ``images``), ``rank``, ``trial_row`` (place of the trial:
            ``images.row_of_unit`` says whose) and ``distance`` in standardised components.

        Raises
        ------
        ParameterError
            The model uses no images, or ``k`` is not between 1 and the places of the trial.
        """
        from causalfair.imagery._importance import nearest_places

        check_is_fitted(self)
        reference = self._reference("nearest")
        raw, _ = self._raw(images, "ImageSequenceCATE.nearest")
        return nearest_places(reference.Z, reference.components(raw), k)

    def support(self, images: Any, X: Any = None) -> Any:
        """Where the trial supports a prediction, and where it does not.

        Parameters
        ----------
        images : ImageSequence or array of shape (G, T, H, W, C)
            Places outside the trial.
        X : frame or array, optional
            Ignored by the diagnostics, which look at the images.

        Returns
        -------
        SupportReport
            One row a place: density ratio, distance, reconstruction error, ``supported``.

        Raises
        ------
        ParameterError
            The model uses no images.
        """
        del X
        check_is_fitted(self)
        reference = self._reference("support")
        owner = "ImageSequenceCATE.support"
        raw, rows = self._raw(images, owner)
        self._compare_calendars(images, owner)
        return reference.report(raw, rows, child_seed(self._seed, 1))

    def transport(
        self,
        images: Any,
        X: Any = None,
        *,
        unsupported: str = "exclude",
        finite_target: bool = False,
        target_cluster: Any = None,
    ) -> Any:
        """Average effect and map outside the trial.

        Parameters
        ----------
        images : ImageSequence or array of shape (G, T, H, W, C)
            The target region.
        X : frame or array of shape (G, p), optional
            Its covariates, where the model uses them.
        unsupported : {"exclude", "ignore"}, default "exclude"
            Leave places without support out of the average, or ignore the diagnostics.
        finite_target : bool, default False
            The places are the whole region rather than a sample of it.
        target_cluster : array of shape (G,), optional
            Blocks of the region, such as districts, that its places were sampled in: dense cells
            of a grid are not independent draws.

        Returns
        -------
        Transport
            Term ``target ATE`` (doubly robust), the plug-in mean, effects, support, sensitivity.

        Raises
        ------
        IdentificationError
            No place is supported.
        """
        from causalfair.imagery._transport import transport

        check_is_fitted(self)
        reference = self._reference("transport")
        if unsupported not in ("exclude", "ignore"):
            raise ParameterError(
                f"ImageSequenceCATE.transport got unsupported={unsupported!r}; use 'exclude' or "
                "'ignore'."
            )
        owner = "ImageSequenceCATE.transport"
        raw, rows = self._raw(images, owner)
        self._compare_calendars(images, owner)
        report = reference.report(raw, rows, child_seed(self._seed, 1))
        effect = np.asarray(self.predict(images, X), dtype=np.float64)
        return transport(
            self.effect_model_.sample_, effect, report, self.estimates_,
            exclude=unsupported == "exclude", finite_target=finite_target,
            target_cluster=target_cluster,
        )  # fmt: skip

    def _compare_calendars(self, images: Any, owner: str) -> None:
        if self.calendar_ is not None:
            self.calendar_.warn_of(Calendar.of(as_sequence(images, owner=owner)), owner)

    def _reference(self, method: str) -> SupportReference:
        if self._support_reference is None:
            raise ParameterError(
                f"ImageSequenceCATE.{method} looks at images; this model uses covariates only."
            )
        return self._support_reference

    # Reporting ----------------------------------------------------------------------------------

    def _summary_header(self) -> list[tuple[str, str]]:
        pairs = super()._summary_header()
        pairs.append(("data", self.data_source_))
        if self.compressor_ is not None:
            kind = "components" if self.compressor_.components_ is not None else "features"
            pairs.append((f"image {kind}", f"{len(self.compressor_.explained_)}"))
        pairs.append(("learner", type(self.effect_model_).__name__))
        return pairs

    def _summary_tables(self) -> list[Any]:
        return [self.calibration_test().table()]

    def _summary_notes(self) -> list[str]:
        notes = [self._propensity_note[0].upper() + self._propensity_note[1:] + "."]
        if self._cluster_note:
            notes.append(self._cluster_note)
        if self.placebo_:
            notes.append("PLACEBO: images taken after treatment were allowed in.")
        notes.append("Ranking: .evaluate()   Elsewhere: .support(images), .transport(images)")
        return notes

    def _cite_extra(self) -> tuple[str, ...]:
        learner = getattr(self, "effect_model_", None)
        keys = tuple(getattr(learner, "_citations", ()))
        encoder = getattr(getattr(self, "representation_", None), "frame_features_", None)
        if type(encoder).__name__ == "RandomConvolutionFeatures":
            keys += ("rolf2021generalizable",)
        return keys


def feature_names(representation: Any, count: int) -> list[str]:
    if hasattr(representation, "get_feature_names_out"):
        return [str(name) for name in representation.get_feature_names_out()]
    return [f"image{j}" for j in range(count)]


def first_cluster(cluster: Any) -> Any:
    return None if cluster is None else cluster[:, 0]
