raise RuntimeError("the module is broken")
