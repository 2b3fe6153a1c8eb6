"""The admission plugins of kube-apiserver that know built-in kinds.

Law: one plugin (or one family of small ones) per file, named as upstream names it; `plugins` alone knows their order.
Objects are seen in the version of the request, after defaulting and before validation: every value may still be wrong.
"""
