from ._checks import Finding as Finding
from ._checks import RiskChecks as RiskChecks
from ._compare import RiskComparison as RiskComparison
from ._compare import compare_risk_models as compare_risk_models
from ._estimator import DomainConstrainedRisk as DomainConstrainedRisk
from ._sensitivity import PrevalenceSensitivity as PrevalenceSensitivity
from ._sensitivity import prevalence_sensitivity as prevalence_sensitivity
