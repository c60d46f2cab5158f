"""Language models behind one interface.

HRM-ACTv1 -> `hrm_act.py`; those of the Hugging Face hub are wrapped.
"""
