from ._calibration import CalibrationTest as CalibrationTest
from ._cost import CostCurve as CostCurve
from ._cost import cost_curve as cost_curve
from ._estimator import CausalForest as CausalForest
from ._generic import GenericInference as GenericInference
from ._generic import generic_inference as generic_inference
from ._groups import GroupEffects as GroupEffects
from ._groups import group_average_effects as group_average_effects
from ._learners import DRLearner as DRLearner
from ._learners import RLearner as RLearner
from ._learners import SLearner as SLearner
from ._learners import TLearner as TLearner
from ._learners import XLearner as XLearner
from ._loss import EffectLosses as EffectLosses
from ._loss import StackedEffects as StackedEffects
from ._loss import effect_losses as effect_losses
from ._loss import stack_effects as stack_effects
from ._policy import policy_value as policy_value
from ._policy import treat_top as treat_top
from ._policy_tree import PolicyTree as PolicyTree
from ._policy_tree import learn_policy_tree as learn_policy_tree
from ._randomization import randomization_test as randomization_test
from ._ranking import RankingValidation as RankingValidation
from ._ranking import validate_ranking as validate_ranking
from ._rate import RATE as RATE
from ._rate import rank_average_treatment_effect as rank_average_treatment_effect
from ._tuning import TunedForest as TunedForest
from ._tuning import tune_forest as tune_forest

__all__ = [
    "RATE",
    "CalibrationTest",
    "CausalForest",
    "CostCurve",
    "DRLearner",
    "EffectLosses",
    "GenericInference",
    "GroupEffects",
    "PolicyTree",
    "RLearner",
    "RankingValidation",
    "SLearner",
    "StackedEffects",
    "TLearner",
    "TunedForest",
    "XLearner",
    "cost_curve",
    "effect_losses",
    "generic_inference",
    "group_average_effects",
    "learn_policy_tree",
    "policy_value",
    "randomization_test",
    "rank_average_treatment_effect",
    "stack_effects",
    "treat_top",
    "tune_forest",
    "validate_ranking",
]
