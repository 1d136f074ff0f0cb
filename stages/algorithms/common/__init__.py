"""What several algorithms are made of; none of it knows one of them.

batches.py       a client's images in batches, epoch after epoch; steps over any tables
sgd.py           the steps of local training: SGD and Adam along an objective
cuda_graphs.py   steps captured and replayed as CUDA graphs, several clients' at a time
losses.py        objectives, prototypes, MMD
class_means.py   the mean of each class over batches as they go by
one_pass.py      two batches through a network in one pass
joint_norm.py    BatchNorm of both batches in one kernel, with Triton
one_head.py      a head that all clients come to share
weights.py       averages of weights, auxiliary models
records.py       a record's tensors by name, its cost, and how it travels
privacy.py       clipping and noise on uploaded prototypes, and what they promise
"""
