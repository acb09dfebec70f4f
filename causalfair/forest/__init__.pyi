from ._calibration import CalibrationTest as CalibrationTest
from ._estimator import CausalForest as CausalForest
from ._learners import DRLearner as DRLearner
from ._learners import RLearner as RLearner
from ._learners import SLearner as SLearner
from ._learners import TLearner as TLearner
from ._learners import XLearner as XLearner
from ._policy import policy_value as policy_value
from ._policy import treat_top as treat_top
from ._policy_tree import PolicyTree as PolicyTree
from ._policy_tree import learn_policy_tree as learn_policy_tree
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
    "DRLearner",
    "PolicyTree",
    "RLearner",
    "RankingValidation",
    "SLearner",
    "TLearner",
    "TunedForest",
    "XLearner",
    "learn_policy_tree",
    "policy_value",
    "rank_average_treatment_effect",
    "treat_top",
    "tune_forest",
    "validate_ranking",
]
