from .autoencoder import Autoencoder as Autoencoder
from .beta_vae import BetaVAE as BetaVAE
from .damage_unet import DamageUNet as DamageUNet
from .dcgan import DCGAN as DCGAN
from .ddpm import DDPM as DDPM
from .distance_autoencoder import DistanceAutoencoder as DistanceAutoencoder
from .f_anogan import FAnoGAN as FAnoGAN
from .gan import GAN as GAN
from .hypersphere_classifier import HypersphereClassifier as HypersphereClassifier
from .image_autoencoder import ImageAutoencoder as ImageAutoencoder
from .image_classifier import ImageClassifier as ImageClassifier
from .image_vae import ImageVAE as ImageVAE
from .image_wgan_gp import ImageWGANGP as ImageWGANGP
from .latent_ddpm import LatentDDPM as LatentDDPM
from .latent_flow import LatentFlow as LatentFlow
from .multi_domain_vae import MultiDomainVAE as MultiDomainVAE
from .rectified_flow import RectifiedFlow as RectifiedFlow
from .restorer import Restorer as Restorer
from .sulcus_segmenter import SulcusSegmenter as SulcusSegmenter
from .unit import UNIT as UNIT
from .vnet import VNet as VNet
from .vqvae import VQVAE as VQVAE
from .vqvae_transformer import VQVAETransformer as VQVAETransformer
from .wgan import WGAN as WGAN
from .wgan_gp import WGANGP as WGANGP

__all__: list[str]
