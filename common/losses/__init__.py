"""Contrastive objectives over the contrast engine: one class per published objective."""

from counterpoint.common.losses.albef import ALBEFContrast, hard_negatives, masked_lm_loss, matching_loss
from counterpoint.common.losses.amcl import AMCL, AMCLBarlow, AMCLMoCo, AMCLSimSiam
from counterpoint.common.losses.awp import CTCWithPurpose, earlier_paths, path_hinge, sampled_paths
from counterpoint.common.losses.banzhaf import banzhaf_interaction, coalition_value
from counterpoint.common.losses.base import Objective
from counterpoint.common.losses.cacr import CACR
from counterpoint.common.losses.cards import ObjectiveCard, ObjectiveEntry, objectives
from counterpoint.common.losses.coca import CoCa
from counterpoint.common.losses.covariance import WMSE, BarlowTwins, VICReg
from counterpoint.common.losses.cwcl import CWCL
from counterpoint.common.losses.d2f import SoftContrastive
from counterpoint.common.losses.dcl import DCL, DCLW
from counterpoint.common.losses.dexml import DecoupledSoftmax, MultiLabelSigmoid, MultiLabelSoftmax, SoftTopK
from counterpoint.common.losses.fastclip import FastCLIP
from counterpoint.common.losses.gap import CUA, Alignment, CrossUniformity, Uniformity
from counterpoint.common.losses.gram import GRAM, gram_volume
from counterpoint.common.losses.hard import HardContrastive, SimpleContrastive
from counterpoint.common.losses.hbi import HBI, InteractionNetwork
from counterpoint.common.losses.hcl import HCL, CrossModalHCL
from counterpoint.common.losses.hinge import TripletHinge
from counterpoint.common.losses.infonce import InfoNCE
from counterpoint.common.losses.m3col import M3CoL, MixCo, SoftClip
from counterpoint.common.losses.metrix import Metrix
from counterpoint.common.losses.mlcd import MLCD, cluster_labels
from counterpoint.common.losses.moco import MoCHi, MoCo
from counterpoint.common.losses.modx import ModX
from counterpoint.common.losses.multiview import DHEL, MVDHEL, MVInfoNCE
from counterpoint.common.losses.norton import Norton
from counterpoint.common.losses.norton_paragraph import NortonParagraph, bucket_transport, token_similarity
from counterpoint.common.losses.ntxent import MultiViewNTXent, NTXent
from counterpoint.common.losses.pixpro import PixelPropagation, PixPro, crop_cells
from counterpoint.common.losses.queue import FeatureQueue
from counterpoint.common.losses.rebalance import BMC, BNI, GAI, BalancedSoftmax, label_density_weights
from counterpoint.common.losses.sample_state import SampleState
from counterpoint.common.losses.scale import LogitScale
from counterpoint.common.losses.sepclr import SepCLR, joint_entropy
from counterpoint.common.losses.sharing import EngineSettings, Shared, engine_settings, unshared
from counterpoint.common.losses.siglip import SigLIP
from counterpoint.common.losses.simlap import SimLAP
from counterpoint.common.losses.slotcon import SlotCon, overlap
from counterpoint.common.losses.sogclr import ISogCLR, SogCLR
from counterpoint.common.losses.supcon import SupCon
from counterpoint.common.losses.supremix import SupReMix
from counterpoint.common.losses.swav import SwAV
from counterpoint.common.losses.symile import Symile, multilinear
from counterpoint.common.losses.tcl import TCL, LocalMI, pool_patches
from counterpoint.common.losses.whitenedcse import ShuffledGroupWhitening, WhitenedCSE

__all__ = [
    "ALBEFContrast",
    "AMCL",
    "AMCLBarlow",
    "AMCLMoCo",
    "AMCLSimSiam",
    "Alignment",
    "BMC",
    "BNI",
    "BalancedSoftmax",
    "BarlowTwins",
    "CACR",
    "CTCWithPurpose",
    "CUA",
    "CWCL",
    "CoCa",
    "CrossModalHCL",
    "CrossUniformity",
    "DCL",
    "DCLW",
    "DHEL",
    "DecoupledSoftmax",
    "EngineSettings",
    "FastCLIP",
    "FeatureQueue",
    "GAI",
    "GRAM",
    "HBI",
    "HCL",
    "HardContrastive",
    "ISogCLR",
    "InfoNCE",
    "InteractionNetwork",
    "LocalMI",
    "LogitScale",
    "M3CoL",
    "MLCD",
    "MVDHEL",
    "MVInfoNCE",
    "Metrix",
    "MixCo",
    "MoCHi",
    "MoCo",
    "ModX",
    "MultiLabelSigmoid",
    "MultiLabelSoftmax",
    "MultiViewNTXent",
    "NTXent",
    "Norton",
    "NortonParagraph",
    "Objective",
    "ObjectiveCard",
    "ObjectiveEntry",
    "PixPro",
    "PixelPropagation",
    "SampleState",
    "SepCLR",
    "Shared",
    "ShuffledGroupWhitening",
    "SigLIP",
    "SimLAP",
    "SimpleContrastive",
    "SlotCon",
    "SoftClip",
    "SoftContrastive",
    "SoftTopK",
    "SogCLR",
    "SupCon",
    "SupReMix",
    "SwAV",
    "Symile",
    "TCL",
    "TripletHinge",
    "Uniformity",
    "VICReg",
    "WMSE",
    "WhitenedCSE",
    "banzhaf_interaction",
    "bucket_transport",
    "cluster_labels",
    "coalition_value",
    "crop_cells",
    "earlier_paths",
    "engine_settings",
    "gram_volume",
    "hard_negatives",
    "joint_entropy",
    "label_density_weights",
    "masked_lm_loss",
    "matching_loss",
    "multilinear",
    "objectives",
    "overlap",
    "path_hinge",
    "pool_patches",
    "sampled_paths",
    "token_similarity",
    "unshared",
]
