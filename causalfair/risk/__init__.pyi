from ._bivariate import bivariate_normal_cdf as bivariate_normal_cdf
from ._heckman import HeckmanRisk as HeckmanRisk
from ._probit_selection import BivariateProbitSelection as BivariateProbitSelection
