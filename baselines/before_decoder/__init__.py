"""Methods that prune between the projector and the decoder: VisionZip, FasterVLM, VisPruner, PruMerge, HiRED, …"""
