from . import adaptive as adaptive
from . import datasets as datasets
from . import exceptions as exceptions
from . import fairness as fairness
from . import forest as forest
from . import imagery as imagery
from . import inference as inference
from . import iv as iv
from . import reporting as reporting
from . import reward as reward
from . import risk as risk
from ._core.options import get_option as get_option
from ._core.options import option_context as option_context
from ._core.options import set_options as set_options

__version__: str
