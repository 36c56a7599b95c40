"""The other methods: one file each, the same `Pruner` interface as FitPrune."""
