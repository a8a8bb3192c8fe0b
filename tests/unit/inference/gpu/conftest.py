import torch

# Equal bytes need a fixed thread count, and tensors this small only lose by being shared out.
torch.set_num_threads(1)
