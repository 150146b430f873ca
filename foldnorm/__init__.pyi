from . import datasets as datasets
from . import metrics as metrics
from . import transforms as transforms
from .api import load as load
from .api import load_config as load_config
from .api import preprocess as preprocess
from .api import train as train
from .pipeline.runs.model_list import list_models as list_models
from .pipeline.runs.trained_model import TrainedModel as TrainedModel
from .pipeline.scoring.scorer import Scorer as Scorer
from .plotting import plot as plot
from .preprocessing.cohort.cohort import Cohort as Cohort
from .preprocessing.core.errors import InputError as InputError

__version__: str
__all__: list[str]
