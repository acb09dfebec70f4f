from ._debiased import DebiasedATE as DebiasedATE
from ._mr_genius import MRGenius as MRGenius
from ._multiply_robust import MultiplyRobustATE as MultiplyRobustATE
from ._selection import NuisanceSelection as NuisanceSelection
from ._selection import minimal_covers as minimal_covers
from ._selection import select_nuisances as select_nuisances
from ._selective import SelectiveATE as SelectiveATE
