from ._clusters import ImageClusterEffects as ImageClusterEffects
from ._compare import RepresentationComparison as RepresentationComparison
from ._compare import compare_representations as compare_representations
from ._convolution import RandomConvolutionFeatures as RandomConvolutionFeatures
from ._estimator import ImageSequenceCATE as ImageSequenceCATE
from ._features import SequenceFeatures as SequenceFeatures
from ._frames import FrameEncoder as FrameEncoder
from ._importance import describe_components as describe_components
from ._interpret import LandCoverReport as LandCoverReport
from ._interpret import describe_land_cover as describe_land_cover
from ._interpret import land_cover_shares as land_cover_shares
from ._interpret import occlusion_map as occlusion_map
from ._jitter import JitterStudy as JitterStudy
from ._jitter import jitter_study as jitter_study
from ._neural import NeuralSequenceEffects as NeuralSequenceEffects
from ._pictures import plot_acquisitions as plot_acquisitions
from ._pictures import plot_effect_map as plot_effect_map
from ._pictures import plot_exemplars as plot_exemplars
from ._pictures import plot_occlusion as plot_occlusion
from ._placebo import PlaceboTransport as PlaceboTransport
from ._placebo import placebo_transport as placebo_transport
from ._ranking import RankingEvaluation as RankingEvaluation
from ._scales import MultiScaleFeatures as MultiScaleFeatures
from ._scales import ScaleSearch as ScaleSearch
from ._scales import scale_search as scale_search
from ._sequence import ImageSequence as ImageSequence
from ._spectral import SpectralFeatures as SpectralFeatures
from ._support import SupportReport as SupportReport
from ._torch import TorchFrameEncoder as TorchFrameEncoder
from ._torch import TorchSequenceEncoder as TorchSequenceEncoder
from ._transport import Transport as Transport
from ._transport import compare_transports as compare_transports

__all__ = [
    "FrameEncoder",
    "ImageClusterEffects",
    "ImageSequence",
    "ImageSequenceCATE",
    "JitterStudy",
    "LandCoverReport",
    "MultiScaleFeatures",
    "NeuralSequenceEffects",
    "PlaceboTransport",
    "RandomConvolutionFeatures",
    "RankingEvaluation",
    "RepresentationComparison",
    "ScaleSearch",
    "SequenceFeatures",
    "SpectralFeatures",
    "SupportReport",
    "TorchFrameEncoder",
    "TorchSequenceEncoder",
    "Transport",
    "compare_representations",
    "compare_transports",
    "describe_components",
    "describe_land_cover",
    "jitter_study",
    "land_cover_shares",
    "occlusion_map",
    "placebo_transport",
    "plot_acquisitions",
    "plot_effect_map",
    "plot_exemplars",
    "plot_occlusion",
    "scale_search",
]
