"""What to cite: BibTeX of the library and of the papers behind each system."""

from jaxprot.core.errors import InputError

_PAPERS = {
    "jaxprot": """@software{jaxprot,
  title   = {jaxprot: protein stability, flexibility, heterogeneity, dynamics and transfer learning in JAX},
  author  = {{The jaxprot developers}},
  license = {Apache-2.0},
  version = {VERSION},
}""",
    "proteinmpnn": """@article{dauparas2022proteinmpnn,
  title   = {Robust deep learning-based protein sequence design using {ProteinMPNN}},
  author  = {Dauparas, J. and Anishchenko, I. and Bennett, N. and others},
  journal = {Science},
  year    = {2022},
  doi     = {10.1126/science.add2187},
}""",
    "thermompnn": """@article{dieckhaus2024thermompnn,
  title   = {Transfer learning to leverage larger datasets for improved prediction of protein stability changes},
  author  = {Dieckhaus, Henry and Brocidiacono, Michael and Randolph, Nicholas Z. and Kuhlman, Brian},
  journal = {Proceedings of the National Academy of Sciences},
  year    = {2024},
  doi     = {10.1073/pnas.2314853121},
}""",
    "thermompnn-d": """@article{dieckhaus2025doubles,
  title   = {Protein stability models fail to capture epistatic interactions of double point mutations},
  author  = {Dieckhaus, Henry and Kuhlman, Brian},
  journal = {Protein Science},
  year    = {2025},
  doi     = {10.1002/pro.70003},
}""",
    "rmsfnet": """@article{song2024rmsfnet,
  title   = {Accurate prediction of protein structural flexibility by deep learning integrating intricate atomic
             structures and cryo-{EM} density information},
  author  = {Song, Xintao and Bao, Lei and Feng, Chenjie and others},
  journal = {Nature Communications},
  year    = {2024},
  doi     = {10.1038/s41467-024-49858-x},
}""",
    "cryostar": """@article{li2024cryostar,
  title   = {{CryoSTAR}: leveraging structural priors and constraints for cryo-{EM} heterogeneous reconstruction},
  author  = {Li, Yilai and Zhou, Yi and Yuan, Jing and Ye, Fei and Gu, Quanquan},
  journal = {Nature Methods},
  year    = {2024},
  doi     = {10.1038/s41592-024-02486-1},
}""",
    "ai2bmd": """@article{wang2024ai2bmd,
  title   = {Ab initio characterization of protein molecular dynamics with {AI2BMD}},
  author  = {Wang, Tong and He, Xinheng and Li, Mingyu and others},
  journal = {Nature},
  year    = {2024},
  doi     = {10.1038/s41586-024-08127-z},
}""",
    "visnet": """@article{wang2024visnet,
  title   = {Enhancing geometric representations for molecules with equivariant vector-scalar interactive message
             passing},
  author  = {Wang, Yusong and Wang, Tong and Li, Shaoning and others},
  journal = {Nature Communications},
  year    = {2024},
  doi     = {10.1038/s41467-023-43720-2},
}""",
    "obc": """@article{onufriev2004obc,
  title   = {Exploring protein native states and large-scale conformational changes with a modified generalized {Born}
             model},
  author  = {Onufriev, Alexey and Bashford, Donald and Case, David A.},
  journal = {Proteins},
  year    = {2004},
  doi     = {10.1002/prot.20033},
}""",
    "massa": """@article{hu2023massa,
  title   = {A multimodal protein representation framework for quantifying transferability across biochemical downstream
             tasks},
  author  = {Hu, Fan and Hu, Yishen and Zhang, Weihong and Huang, Huazhen and Pan, Yi and Yin, Peng},
  journal = {Advanced Science},
  year    = {2023},
  doi     = {10.1002/advs.202301223},
}""",
    "gvp": """@inproceedings{jing2021gvp,
  title     = {Learning from protein structure with geometric vector perceptrons},
  author    = {Jing, Bowen and Eismann, Stephan and Suriana, Patricia and Townshend, Raphael J. L. and Dror, Ron},
  booktitle = {International Conference on Learning Representations},
  year      = {2021},
  url       = {https://arxiv.org/abs/2009.01411},
}""",
    "esm2": """@article{lin2023esm2,
  title   = {Evolutionary-scale prediction of atomic-level protein structure with a language model},
  author  = {Lin, Zeming and Akin, Halil and Rao, Roshan and others},
  journal = {Science},
  year    = {2023},
  doi     = {10.1126/science.ade2574},
}""",
    "otdd": """@inproceedings{alvarez2020otdd,
  title     = {Geometric dataset distances via optimal transport},
  author    = {Alvarez-Melis, David and Fusi, Nicol{\\`o}},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2020},
  url       = {https://arxiv.org/abs/2002.02923},
}""",
    "sinkhorn-divergence": """@inproceedings{feydy2019interpolating,
  title     = {Interpolating between optimal transport and {MMD} using {Sinkhorn} divergences},
  author    = {Feydy, Jean and S{\\'e}journ{\\'e}, Thibault and Vialard, Fran{\\c{c}}ois-Xavier and others},
  booktitle = {International Conference on Artificial Intelligence and Statistics},
  year      = {2019},
  url       = {https://arxiv.org/abs/1810.08278},
}""",
    "megascale": """@article{tsuboyama2023megascale,
  title   = {Mega-scale experimental analysis of protein folding stability in biology and design},
  author  = {Tsuboyama, Kotaro and others},
  journal = {Nature},
  year    = {2023},
  doi     = {10.1038/s41586-023-06328-6},
}""",
}

# system -> papers whose work its results rest on
_SYSTEMS = {
    "proteinmpnn": ("proteinmpnn",),
    "thermompnn": ("thermompnn", "thermompnn-d", "proteinmpnn", "megascale"),
    "rmsfnet": ("rmsfnet",),
    "cryostar": ("cryostar",),
    "ai2bmd": ("ai2bmd", "visnet", "obc"),
    "massa": ("massa", "gvp", "otdd", "sinkhorn-divergence"),
    "esm2": ("esm2",),
}


def cite(*systems: str) -> str:
    """BibTeX entries of the library and of the papers behind the given systems (all systems if none is given).

    Raises:
      InputError: unknown system.
    """
    from jaxprot._version import __version__

    for system in systems:
        if system not in _SYSTEMS:
            raise InputError(f"{system}: no such system; one of {', '.join(_SYSTEMS)}")
    keys = dict.fromkeys(["jaxprot", *(key for system in systems or _SYSTEMS for key in _SYSTEMS[system])])
    return "\n\n".join(_PAPERS[key].replace("VERSION", __version__) for key in keys) + "\n"
